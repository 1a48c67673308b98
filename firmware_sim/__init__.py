"""The devices that stand in for hardware: ankle monitors, wristbands and telephone check-in lines."""
