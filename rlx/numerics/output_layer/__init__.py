"""Log-probs and statistics of tokens from hidden states and output layer, without a [tokens, vocabulary] tensor."""
