"""What a second round in a step costs, against the first round of the same run."""
