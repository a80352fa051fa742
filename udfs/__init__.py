"""What runs on executors: pure functions over Arrow batches that know neither Spark nor tables."""
