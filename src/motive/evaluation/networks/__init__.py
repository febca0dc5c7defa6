"""The networks that dimensions ask: where they come from, and what a user's own must do."""
