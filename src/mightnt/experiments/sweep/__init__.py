"""The full experiment: one factor at a time around a headline cell, every run a record, every report made from records."""
