"""Can a data set's split be trusted?"""
