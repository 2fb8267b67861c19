"""What is in a bank: copies of real images, how real and how varied its images are, whether its labels are honest."""
