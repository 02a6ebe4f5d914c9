"""The two training stages, both on TRL's SFTTrainer."""
