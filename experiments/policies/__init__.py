"""The experiment that the project is about, in small: does a student pass its teachers, and which
label policy teaches it best?"""
