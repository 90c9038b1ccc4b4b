"""Everything that makes chunks: a run's plan, a retry, halving, adoption and a person's verdict. Reads and writes."""
