"""What a service is and how it is asked for: pure, no network and no processes."""
