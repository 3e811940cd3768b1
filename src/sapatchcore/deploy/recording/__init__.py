"""Behind the records: what is kept, and the database."""
