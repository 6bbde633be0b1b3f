"""Machine unlearning: loop, update, measures, attacks, certificate."""
