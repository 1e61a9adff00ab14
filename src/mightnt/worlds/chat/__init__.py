"""The teacher-student chat: a demonstrator whose next-token probabilities are known exactly, and a student."""
