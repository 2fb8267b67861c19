"""Know your bank: what it holds, how near it is to its training images, and what an expert says of it."""
