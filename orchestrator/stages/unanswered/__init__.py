"""Create calls that had no answer: what became of each is proved by the API's list of jobs, or left to a person."""
