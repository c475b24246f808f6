"""Parts of networks that several heads are made of: modules and functions of torch, without a table."""
