"""What is wrong with data, told from what chance makes of data with nothing wrong."""
