"""Published data sets: pictures of people with measured or fitted labels."""
