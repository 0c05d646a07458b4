"""What is published: the sdist, the wheel that is built of it, and the tests run against that wheel."""
