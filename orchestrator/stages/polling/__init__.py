"""From submitted to ended: asking about jobs as seldom as will do, and taking in their results."""
