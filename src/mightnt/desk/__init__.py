"""Act, pay, ask: the loop that plays a policy and puts its questions before somebody."""
