"""What a user might write: in the five modules as it should be, in `mistakes` as it should not."""
