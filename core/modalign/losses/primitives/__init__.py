"""What losses are made of: streamed softmax and sigmoid sums, tuple and token scores, pairs, groups."""
