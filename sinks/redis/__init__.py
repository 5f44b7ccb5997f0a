"""Redis (or Valkey): live budgets under the hold protocol, provider health. The only package that speaks to it."""
