"""The help desk with a tool: a demonstrator known exactly, and a proxy whose maximum an undemonstrated shortcut reaches."""
