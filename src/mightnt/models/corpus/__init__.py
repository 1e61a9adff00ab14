"""Counts at corpus scale: what followed every suffix, of any length, in demonstrations too many for tables in memory."""
