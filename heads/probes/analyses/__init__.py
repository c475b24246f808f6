"""The analyses of the table: each from a question to a finding."""
