"""What is watched as a run goes: alarms, and numbers that are not finite."""
