"""All that makes chunks: what a run plans, a retry, halving, adoption and a person's verdict. Reads and writes."""
