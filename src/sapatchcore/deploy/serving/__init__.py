"""Behind the server: one request's way, and what it holds."""
