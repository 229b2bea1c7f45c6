"""Players in a PostgreSQL database, through psycopg 3."""
