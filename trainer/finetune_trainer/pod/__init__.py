"""What a process of the container is: the launcher (PID 1), the ranks it starts, and how they tell it their end."""
