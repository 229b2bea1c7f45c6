"""The live table: the rows of all who are online, the file they lie in, and recovery from it."""
