"""The promises that `trainshed audit` checks."""
