"""Is the student better now, and is the reward model right?"""
