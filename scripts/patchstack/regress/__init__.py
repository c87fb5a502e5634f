"""Run guards on composed trees in the test bed and judge what they say."""
