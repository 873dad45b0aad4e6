"""What is usual for a series of numbers, learnt as they come."""
