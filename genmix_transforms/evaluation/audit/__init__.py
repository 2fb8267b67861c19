"""What a bank is worth: which of its images are copies."""
