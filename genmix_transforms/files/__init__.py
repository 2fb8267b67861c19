"""The ground floor: files written whole or not at all, images and arrays read, contact sheets drawn."""
