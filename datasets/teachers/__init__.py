"""What teachers say of recordings, as tables beside the catalog."""
