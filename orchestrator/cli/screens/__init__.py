"""The screens that stand still, one module for each command; ``parts`` has what several of them show."""
