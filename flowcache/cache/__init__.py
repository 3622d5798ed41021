"""What is kept from one step to the next: K/V, and the policy that skips steps."""
