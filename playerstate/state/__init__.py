"""A state class, compiled: its fields, their checks, the packed row, and the default class."""
