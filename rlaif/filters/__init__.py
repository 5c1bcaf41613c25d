"""What decides which labels are kept: each file one filter; what it drops is kept with the reason."""
