"""What decides which labels are kept, a filter a file; what one drops is kept with the reason."""
