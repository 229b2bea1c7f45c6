"""The live table: the rows of players online or leaving, their file, and its recovery."""
