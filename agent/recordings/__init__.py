"""What the sensors said, kept and judged again."""
