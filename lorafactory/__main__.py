"""Run the command line as `python -m lorafactory`."""

from lorafactory.cli import main

if __name__ == "__main__":
    main()
