@echo off
rem Start lorafactory; lora.py makes its environment first where that is missing.
where /q py
if errorlevel 1 goto python
py -3 -I "%~dp0lora.py" %*
exit /b %errorlevel%
:python
where /q python
if errorlevel 1 goto missing
python -I "%~dp0lora.py" %*
exit /b %errorlevel%
:missing
echo lora: Python 3.11 or newer is needed; install it from https://www.python.org/downloads/, then start again 1>&2
exit /b 3
