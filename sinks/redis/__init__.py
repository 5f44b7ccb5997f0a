"""Redis (or Valkey): live budgets with the hold protocol, and provider health. The only package that speaks to Redis."""
