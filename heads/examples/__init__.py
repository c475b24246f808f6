"""What a head is trained on: clips, parts, targets, features in memory."""
